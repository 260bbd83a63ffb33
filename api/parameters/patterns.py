"""Patterns of texts for the OpenAPI document; `service.text` and `service.db.ids` check the same and name the fault."""

_CONTROL = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
ID = r"^[a-z]{2,4}_[0-9a-z]{26}$"
WITHOUT_NUL = r"^[^\u0000]*$"  # databases cannot store it in a text
PRINTABLE = rf"^[^{_CONTROL}]*$"
LINE = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"  # printable, and not blank
FIELD_POINTER = r"^(/[A-Za-z_][A-Za-z0-9_]*){1,8}$"  # a JSON pointer to a field of a config
LINE_OR_EMPTY = rf"^([^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*)?$"
_GROUP = "[A-Za-z0-9+/_-]"  # of four, both alphabets of RFC 4648
_HEAD = r"(data:[a-z]+/[a-z0-9.+-]+;base64,)?"
BASE64 = rf"^{_HEAD}({_GROUP}{{4}}[\r\n]*)*({_GROUP}{{4}}|{_GROUP}{{3}}=?|{_GROUP}{{2}}(==)?)[\r\n]*$"
