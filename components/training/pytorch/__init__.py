"""The PyTorch trainer and predictor."""
