"""What images weigh, and the report of it. Imports ownership, project and shell."""
