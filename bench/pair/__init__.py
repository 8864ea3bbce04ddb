"""Two revisions measured in turns: what a review costs now, against what it cost before."""
