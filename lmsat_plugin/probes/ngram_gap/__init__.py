"""The probe of the n-gram gap, and the logits that n-grams expect."""
