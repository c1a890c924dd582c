"""The alarm: is a tuned model hacked? Reads run folders only, with numpy and Pillow; no model is loaded.

`samples` reads the images' records, features and pixels; `measures` and `pixels` are the quantities, `significance`
tells their changes from chance; `hacks`, `collapse` and `training` turn a `case` into findings in plain words,
`evidence` shows the pictures, and `diagnose` puts it all together. The rules are explained in docs/diagnose.md.
"""

from sfumato.diagnosis.diagnose import diagnose

__all__ = ["diagnose"]
