"""Models asked about images, and scored on domains that they know and do not know; anyone's maps scored alike.

May import `params` to `adaptation`.
"""
