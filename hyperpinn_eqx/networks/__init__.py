"""Networks: λ in, main network out."""
