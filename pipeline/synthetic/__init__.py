"""Generated histology with exact masks: tissue laid out in micrometres, stained and scanned.

May import `params` and `runtime`.
"""
