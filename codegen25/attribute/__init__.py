"""Attribution: where a text stands in a corpus, verbatim or reformatted and renamed, and under which licence."""
