"""Teacher and PixelCAM: as nets, read from disk, and as localizers that evaluation can use.

May import `params` to `cams`.
"""
