"""What evaluation needs of a task: who is asked, what stands beside it, and what is reported."""
