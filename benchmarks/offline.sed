# asv's pages with what `npm install` put beside them in place of the net; see README.md.
s#https://code.jquery.com/jquery-[0-9.]*.min#node_modules/jquery/dist/jquery.min#
s#https://cdnjs.*/(jquery.flot[a-z.]*).min.js#node_modules/flot/\1.js#
s#https://cdnjs.*/stupidtable#node_modules/stupid-table-plugin/stupidtable#
s#https://cdnjs.*/md5#node_modules/blueimp-md5/js/md5#
s#https://cdn.jsdelivr.net/npm/([^@]*)@[0-9.]*#node_modules/\1#
s# integrity="[^"]*"##
