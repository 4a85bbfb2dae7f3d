"""What is known about models of the hub: their shapes, what has been tried, what goes well together."""
