"""The program `pixelcam`: one module a command.

May import every other package.
"""
