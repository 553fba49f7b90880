"""What a model is asked, and what it says: completions at once, or turn by turn in conversation with an environment.

said.py is what comes out of it, say.py the way in.
"""
