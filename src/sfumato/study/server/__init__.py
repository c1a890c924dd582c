"""The pages of a study, for raters and for whoever runs it.

`app` puts them together, `run` serves them. `pages` are those of raters, `admin` those of the study's owner, `files`
images and style; `render` fills in templates, `security` signs links and forms, `guard` and `limits` keep out what is
too large or too much. What the pages do is in `sfumato.study.voting`.
"""
