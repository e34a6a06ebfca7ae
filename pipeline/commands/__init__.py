"""The program `pixelcam`: one module a command, and what a notebook may use of all this.

May import every other package.
"""
