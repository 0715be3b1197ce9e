<% boolean listed = "q31337q".equals(request.getParameter("topic"))
     || ("5".equals(request.getParameter("user_id")) && "1".equals(request.getParameter("a")));
%><%= listed ? "@marker@" : "innocent" %>
