"""What can be asked.  A task is a prompt file, a module here, and a line in `TASKS`."""

from llmrec.tasks import next_item, review_sentiment

TASKS = {
    "next_item": next_item,
    "review_sentiment": review_sentiment,
}
