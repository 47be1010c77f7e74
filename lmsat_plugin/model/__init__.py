"""What a language model is made of: its parts, its LM head, its size, and how it is loaded."""
