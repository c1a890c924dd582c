"""From the 5 % to the 95 % quantile; `python -m tools.observed_ranges` writes this."""

OBSERVED: dict[str, str] = {
    "preference": "-1.03 to 2.23 on emoji-64's pictures",
    "aesthetic": "4.62 to 6.74 on emoji-64's pictures",
    "clip_score": "35.7 to 70.7 on emoji-64's pictures",
    "brightness": "0.645 to 0.927 on emoji-64's pictures",
    "sharpness": "152 to 1360 on emoji-64's pictures",
    "colourfulness": "16 to 126 on emoji-64's pictures",
    "jpeg_compressibility": "-3.11 to -1.82 on emoji-64's pictures",
    "jpeg_incompressibility": "1.82 to 3.11 on emoji-64's pictures",
    "soft_jpeg_compressibility": "-3.13 to -1.84 on emoji-64's pictures",
    "soft_jpeg_incompressibility": "1.84 to 3.13 on emoji-64's pictures",
    "jpeg_distance": "-3.57 to -1.39 on emoji-64's pictures",
    "gold": "0.000474 to 0.665 on emoji-64's pictures",
}
