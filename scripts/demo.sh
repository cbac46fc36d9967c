#!/usr/bin/env bash
# The whole story with the shipped adapter: data, what the model reads, lists for real people, a measurement.
#     make demo
set -euo pipefail
cd "$(dirname "$0")/.."

run() {
    printf '\n\033[1m$ llmrec' && printf ' %q' "$@" && printf '\033[0m\n'
    llmrec "$@"
}

run prepare movies
run show movies --user 42
for user in 1 42 405; do
    run recommend movies --user "$user" -n 5
done
run recommend movies --history "Fargo" "Pulp Fiction" --only category=Comedy year=1990..1999 -n 5
run summarize movies --user 42
run explain movies "Heat" --user 42
run chat movies --say "something like Fargo, but a comedy from the 90s, -n 3" --say "why the first?" --say "what do I like?"
run review movies "Far too long, and nobody to care for." "The best evening in years."
run review fashion "Too tight, and it itches." "The softest dress I own, I wear it every week."
run review fashion "The hem drags on the floor." "Warm, but the sleeves pill." --task item_class
run evaluate smoke
