"""How much memory a control will take to learn, and what can be done to need less."""
