"""What can be asked.  A task is a prompt file, a module here, and a line in `TASKS`."""

from llmrec.tasks import explanation, grounded, interest, interest_summary, next_item, review_sentiment

TASKS = {
    "next_item": next_item,
    "interest": interest,
    "interest_summary": interest_summary,
    "explanation": explanation,
    "review_sentiment": review_sentiment,
    "grounded_explanation": grounded,
    "grounded_summary": grounded,
}
