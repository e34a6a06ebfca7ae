"""A trained model as something that opens elsewhere: one file, a package, a page, a card, a repository.

May import `params` to `evaluation`.
"""
