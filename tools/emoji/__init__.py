"""Makes emoji-64: data, autoencoder, scorer, judge, denoiser, evaluation and model card."""
