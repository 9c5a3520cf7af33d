"""temporary"""


def cause_of(error: BaseException) -> str:
    return str(error)
