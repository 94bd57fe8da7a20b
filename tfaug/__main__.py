"""python -m tfaug: the command `tfaug`."""

from tfaug.commands.main import main

if __name__ == "__main__":
    main()
