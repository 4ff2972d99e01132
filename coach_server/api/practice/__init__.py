"""The pages to practise on: a talk with the customer, and what came of practising."""
