"""The three networks: segmenter, conditional generator, discriminator."""
