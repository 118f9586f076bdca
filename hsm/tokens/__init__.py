"""What is peculiar to one make of token, chosen by what was found."""
