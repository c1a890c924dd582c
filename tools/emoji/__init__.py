"""Makes emoji-64 and emoji-64-flow: data, autoencoder, scorer, judge, denoisers, evaluation and model cards."""
