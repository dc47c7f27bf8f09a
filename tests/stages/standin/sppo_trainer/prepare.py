from sppo_trainer.frame import main

main("prepare")
