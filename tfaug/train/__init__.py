"""Update rules, and the one loop that drives them; loop, hooks and checkpoint know nothing of medicine."""
