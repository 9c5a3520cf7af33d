"""The console command: its table of subcommands, and what each does.

Rule: answers go to standard output, everything else to standard error. The exit status is 0 when
it went as asked and 1 when it did not, be it a mistake on the command line or a failure; then one
line of standard error says why. What a subcommand needs is imported when it runs.
"""
