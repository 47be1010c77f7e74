"""What people look at: results read back, and figures of them."""
