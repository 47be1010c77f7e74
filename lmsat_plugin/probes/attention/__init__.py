"""The probe of attention, and the attention weights that it reads."""
