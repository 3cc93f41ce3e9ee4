"""Rows of a retailer's file, as a replay reads them."""

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"


def row(
    number: str = "536365",
    code: str = "85123A",
    quantity: str = "6",
    price: str = "2.55",
    customer: str = "17850.0",
    name: str = "HEART",
) -> str:
    return f"{number},{code},{name},{quantity},2010-12-01 08:26:00,{price},{customer},United Kingdom"
