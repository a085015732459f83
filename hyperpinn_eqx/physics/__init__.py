"""Physics-informed losses (paper eq. 6): sampling, residuals, errors."""
