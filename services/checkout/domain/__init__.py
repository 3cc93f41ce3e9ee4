"""What checkout decides: the saga and its orders (`saga.py`), and stock (`stock.py`). Pure."""
