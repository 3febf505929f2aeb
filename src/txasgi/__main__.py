"""
python -m txasgi
"""

from txasgi.serve.cli import main

if __name__ == "__main__":
    main()
