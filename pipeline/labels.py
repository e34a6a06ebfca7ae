"""The vocabulary of pixel labels, shared by the store, the losses and the pictures."""

from typing import Final

BACKGROUND: Final = 0
FOREGROUND: Final = 1
IGNORE: Final = 255

PIXEL_LABELS: Final = {"background": BACKGROUND, "foreground": FOREGROUND, "ignore": IGNORE}
