"""What checkout decides: the saga (`saga.py`), its quotes, its orders and their refunds, and stock. Pure."""
