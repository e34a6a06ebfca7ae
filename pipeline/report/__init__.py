"""What a person looks at: the page, its charts, pictures and sentences.

May import `params` to `evaluation`.
"""
