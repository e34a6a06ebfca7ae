"""What `params.yaml` may say, checked once at the door, and the words that everybody uses.

May import nothing of the project.
"""
