"""`accelerate launch -m sfumato.cli ...`, `torchrun -m sfumato.cli ...`"""

from sfumato.cli import main

main()
