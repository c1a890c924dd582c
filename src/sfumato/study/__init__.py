"""The user study: people answer, blind, in their browser; their votes are data for analysis and for the next reward.

`config` is the study's YAML. `create` turns it into a study folder: `sources` finds the images of operating points,
`design` says who meets whom, `pictures` writes the images anew under names that tell nothing, `folder` reads the
result. `models` are the tables of votes and `store` the database; `voting` is the protocol by which an item is given
out, answered and taken back, `statements` its SQL, `answers` what an answer is. `export` lists votes, `exclusion` says
whose are left out, `summary` counts them while they come in. `server` puts pages around it, which are in web/, their
words in strings/.

A study reads run folders and folders of images and loads no model. The database and the server need
`pip install 'sfumato[study]'`, PostgreSQL needs `sfumato[study-postgres]`.
"""

from sfumato.study.config import StudyConfig, load_study_config
from sfumato.study.create import create_study
from sfumato.study.folder import Item, Option, Study

__all__ = ["Item", "Option", "Study", "StudyConfig", "create_study", "load_study_config"]
