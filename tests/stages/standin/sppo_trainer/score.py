from sppo_trainer.frame import main

main("score")
