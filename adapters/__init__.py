"""What a BiTA adapter is: its file format, who sees what, its tuning. Knows no scheduler."""
