"""What people take away from measured runs: the choice of a point in plain words, tables and figures for a paper.

Everything is written from what `sfumato.frontier.choose` and `compare_runs` return and from frontier.json; no model is
loaded. `sfumato frontier` is the door to it.
"""
