"""CodeGen2.5: completion and infilling of code, with everything around the models."""
