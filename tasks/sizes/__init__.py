"""What images weigh: weighing, the report, budgets. Imports images and tasks' own modules."""
