"""Training: one contract, one module per framework, one TFX component that runs any of them."""
