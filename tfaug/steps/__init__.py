"""The update rules: one `tf.Module` each, holding its networks and optimisers; calling it does one update.

A step draws nothing at random: whatever is random arrives with the batch.
"""

from tfaug.steps.adversarial import AdversarialSegment
from tfaug.steps.learn_augmentation import NETWORKS, LearnAugmentation
from tfaug.steps.optimizer import Adam, adam
from tfaug.steps.segment import Segment

__all__ = ["Adam", "AdversarialSegment", "LearnAugmentation", "NETWORKS", "Segment", "adam"]
